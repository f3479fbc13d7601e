//! Tests of the whole journal, on the system's files and on the simulated disk.

mod serving;
