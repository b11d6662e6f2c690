"""Figures made from records and tables. `style` holds what they share."""
