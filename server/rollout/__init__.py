"""Change what serves: publish, roll back, promote, all without a request that fails or sees two versions.

The steps on files are conch.switching's; here a running server is told of them, asked whether it took them, and
whether it answers rightly.

    live        the server, as a switch sees it
    switch      publish a stage; canaries beside what serves
    activate    serve a version that is there
    recover     finish or take back what a killed command left
"""
