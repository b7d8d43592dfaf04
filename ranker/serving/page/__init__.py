"""The page: one HTML, one script, one style sheet, served as they are. A package only so that they are installed."""
