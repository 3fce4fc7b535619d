"""Recipes of evaluations that train: detection."""
