"""What should be tried before learning: rivals at the same price, and an adviser whose forecasts are scored."""
