"""The servers of `make bench`.

`handler.py` is the work itself, and what each of the other servers calls; `fastapi_onnx.py`, `fastapi_framework.py`,
`litserve_server.py`, `bentoml_server.py`, `ray_server.py` and `bare_onnx.py` are those servers, one file each. They run
in environments without this project's packages, so these files import nothing else of ours. The rest starts and asks
them: `workloads.py` what is asked, `field.py` who takes part, `triton.py` ours, `environments.py` where they run,
`rounds.py` in which order.
"""
