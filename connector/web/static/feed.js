// The overview as it comes. A page that nobody looks at gives its connection back.

const RETRY_MAX_MS = 15000;

export function follow({ board, connected, lost }) {
  let source = null;
  let waitMs = 1000;
  let timer = null;

  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource("api/feed");
    source.addEventListener("board", (event) => {
      waitMs = 1000;
      connected();
      board(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      lost();
      // The browser tries again by itself, but not where it was refused.
      if (source?.readyState === EventSource.CLOSED) {
        close();
        timer = setTimeout(open, waitMs);
        waitMs = Math.min(2 * waitMs, RETRY_MAX_MS);
      }
    });
  };
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}

export async function ask(path, signal) {
  const answer = await fetch(path, { signal, headers: { Accept: "application/json" } });
  const document = await answer.json().catch(() => ({ error: { message: `HTTP ${answer.status}` } }));
  if (!answer.ok) throw new Error(document.error?.message ?? `HTTP ${answer.status}`);
  return document;
}
