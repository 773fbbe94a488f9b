"""What a repository holds, and the commands that show it, compare it, name it and clear it out."""
