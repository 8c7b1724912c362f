"""What every room uses: rules for settings, files written whole, the cache folder."""
