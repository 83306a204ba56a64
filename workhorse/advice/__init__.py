"""Rivals of learning, each with its price, and an adviser whose forecasts are scored."""
