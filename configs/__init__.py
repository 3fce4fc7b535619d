"""Recipes, one file each: plain assignments on top of `configs.common`."""
