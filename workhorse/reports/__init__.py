"""Pages made for people who would rather look than read: one self-contained HTML file for a run or a study."""
