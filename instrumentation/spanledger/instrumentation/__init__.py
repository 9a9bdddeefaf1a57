"""Provider SDKs made into spans and paid calls; knows no prices, budgets or storage."""
