"""What a run is made of: stages from a frozen record to the next one, and the files that it keeps."""
