"""The Python interface, whose names `import workhorse` offers; the command line calls it too."""
