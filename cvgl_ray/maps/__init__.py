"""Georeferenced rasters and photos: windows of a map in true metres, and what a photo's metadata say."""
