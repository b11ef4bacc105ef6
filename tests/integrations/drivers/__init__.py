"""One driver a framework; ``base.py`` explains how to write one."""
