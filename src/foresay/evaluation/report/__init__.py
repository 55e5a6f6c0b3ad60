"""One HTML file from the JSON of a run: read it, draw it, lay it out."""
