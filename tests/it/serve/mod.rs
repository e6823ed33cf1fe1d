//! `pocketlm serve` as its clients meet it: the program itself, over sockets.

mod bad;
mod endpoints;
mod http;
mod limits;
