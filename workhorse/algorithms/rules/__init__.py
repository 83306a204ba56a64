"""Rules: policies that are fixed, enumerated or guessed, the cheapest rivals of everything that learns."""
