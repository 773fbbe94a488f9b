"""The vocabulary that every other folder shares: types, configs, versions on disk, pipelines, errors."""

__version__ = "0.1.0"
