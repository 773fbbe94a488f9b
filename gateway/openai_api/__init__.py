"""The OpenAI API: chat, completions, embeddings, models; and rerank as Cohere and Jina shape it."""
