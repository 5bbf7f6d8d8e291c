//! Calls with phones and servers that we did not write.
mod clients;
