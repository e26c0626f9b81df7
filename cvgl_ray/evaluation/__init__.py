"""How well references are retrieved: search, figures, protocols, reports. The only room that reads Labels."""
