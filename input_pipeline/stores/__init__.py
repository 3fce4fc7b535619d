"""Image stores: one file a kind of source, and the two forms of prepared pixels."""
