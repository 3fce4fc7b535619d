"""What the site is filled with from code and results; `extension` hands it to Sphinx."""
