//! What must hold when sipalg ends, comes back, or has nothing left to do.
