"""Layouts of folders that data sets come in, found as pairs and written as catalogs."""

from cdpipe.pairs.layouts import folders, original, oscd, patterns

LAYOUTS = {layout.name: layout for layout in (original.LAYOUT, folders.LAYOUT, oscd.LAYOUT, patterns.LAYOUT)}
