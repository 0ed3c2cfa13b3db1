"""Measurements made by hand: what a sidecar costs under a load. They know the product from outside, as a user does."""
