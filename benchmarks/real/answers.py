def own_answers(*a, **k): raise SystemExit
