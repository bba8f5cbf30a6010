"""python -m orchestrator: the same as `transkd`."""

from orchestrator.cli import main

if __name__ == "__main__":
    main()
