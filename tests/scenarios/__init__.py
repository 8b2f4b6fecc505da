"""Scenarios: geomail as a process, real servers around it, and one thing that breaks a file."""
