"""Statistical tests, intervals and corrections on plain arrays; nothing here depends on models or prompts."""
