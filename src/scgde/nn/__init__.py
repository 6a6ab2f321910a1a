"""Pure torch: encoders, statistics, generators. No AnnData here."""
