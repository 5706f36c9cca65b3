"""`salesforce-sync devorg`: a local org to develop against."""
