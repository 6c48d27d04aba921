"""fairmend repairs trained networks that treat groups of people unequally, by switching off a few of their parts."""

__version__ = "0.1.0"
