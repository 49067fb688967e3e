//! What Sherwood's processes agree on: the snapshot format, how it is mapped and leased,
//! and the schema of the state.
//!
//! - the bytes: [`layout`] (header, regions), [`batch`], [`gathered`] and [`shape`] (chunks), [`footer`] and [`index`]
//!   (parts), [`root`] (a generation);
//! - the protocol: [`head`] (what makes a generation visible), [`lock`] (leases and
//!   the witness), [`futex`] (waiting), [`mod@file`] (whom a reader trusts);
//! - [`mapping`], where bytes of the file become memory;
//! - the state: [`schema`], [`state`], and its one-row form [`document`].
//!
//! `docs/format.md` is the authority for the bytes, `docs/design.md` for the rules. The
//! only crate that may say `unsafe`, and it does so in [`mapping`], [`futex`], [`batch`] and
//! `arrays`.

mod arrays;
pub mod batch;
pub mod document;
pub mod file;
pub mod footer;
pub mod futex;
pub mod gathered;
pub mod head;
pub mod in_use;
pub mod index;
pub mod layout;
pub mod lock;
pub mod mapping;
pub mod pause;
pub mod received;
pub mod root;
pub mod schema;
pub mod shape;
pub mod state;
pub mod transaction;
