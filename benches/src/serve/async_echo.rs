//! A framed echo server on plain async-std, a task per connection: the executor without Lua.

use std::io;

use async_std::io::{ReadExt, WriteExt};
use async_std::net::{TcpListener, TcpStream};
use async_std::task;

use crate::serve::{echo_frames, frame_length, say_ready};
use crate::sys;

const READ_SIZE: usize = 64 * 1024;

/// Serves for ever.
///
/// # Errors
///
/// When the port is taken.
pub fn run(port: u16, workers: usize, head_bytes: usize) -> io::Result<()> {
    // The executor counts the thread that blocks on the listener too: it sleeps in the reactor.
    if std::env::var_os("ASYNC_STD_THREAD_COUNT").is_none() {
        return restart_with_threads(workers);
    }
    let listener = sys::listen(port)?;
    listener.set_nonblocking(true)?;
    say_ready();
    task::block_on(async {
        let listener = TcpListener::from(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // An error ends the one connection.
            task::spawn(async move { serve(stream, head_bytes).await.ok() });
        }
    })
}

/// The executor reads its size from the environment, which a process may only set for another.
fn restart_with_threads(workers: usize) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    command.env("ASYNC_STD_THREAD_COUNT", workers.max(1).to_string());
    Err(command.exec())
}

async fn serve(mut stream: TcpStream, head_bytes: usize) -> io::Result<()> {
    let mut input = vec![0; 4096];
    let mut held = 0;
    let mut output = Vec::new();
    loop {
        let n = stream.read(&mut input[held..]).await?;
        if n == 0 {
            return Ok(());
        }
        held += n;
        output.clear();
        let used = echo_frames(&input[..held], head_bytes, &mut output);
        let full = held == input.len();
        input.copy_within(used..held, 0);
        held -= used;
        if full {
            let frame = frame_length(&input[..held], head_bytes).unwrap_or(0);
            let size = frame.max((input.len() * 2).min(READ_SIZE));
            input.resize(size.max(input.len()), 0);
        }
        stream.write_all(&output).await?;
    }
}
