"""`tnr reproduce`: the paper's tables and figures from one configuration."""

STUDY_NAMES = ("table2", "fig3", "fig4", "fig5", "fig6", "fig10")
