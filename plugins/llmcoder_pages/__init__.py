"""The pages of LLMCoder: a FastAPI application that Airflow's API server mounts; `llmcoder_dashboard.py` says where."""
