"""One front for every model of the repository: REST, the OpenAI API and the V2 protocol; `conch gateway`."""
