// Calls to the server that this page came from. Addresses are relative, so that it also works
// behind a proxy that serves it under a path.

const kKeyName = "nsa-api-key";

export class ApiError extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server answered ${status}.`);
    this.status = status;
    this.code = error?.code ?? null;
  }
}

// The key lives as long as the tab.
export function apiKey() {
  return sessionStorage.getItem(kKeyName) ?? "";
}

export function setApiKey(key) {
  if (key) sessionStorage.setItem(kKeyName, key);
  else sessionStorage.removeItem(kKeyName);
}

// Of a call that got no answer, or only a part of one; a stop by this page stays what it is.
function unreachable(error) {
  throw error.name === "AbortError" ? error : new ApiError(0, {message: "The server cannot be reached."});
}

async function send(path, body, signal) {
  const headers = {};
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  }).catch(unreachable);
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new ApiError(response.status, answer?.error);
}

export async function getText(path) {
  return (await send(path)).text();
}

export async function getJson(path) {
  return (await send(path)).json();
}

export async function postJson(path, body, signal) {
  return (await send(path, body, signal)).json();
}

// The events of a stream, as objects, until [DONE]. An error event is thrown.
export async function* postStream(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  try {
    for (;;) {
      const {value, done} = await reader.read().catch(unreachable);
      if (done) throw new ApiError(response.status, {message: "The stream broke off."});
      const frames = (buffered + value).split("\n\n");
      buffered = frames.pop();
      for (const frame of frames) {
        if (!frame.startsWith("data: ")) continue;  // a ping
        const data = frame.slice("data: ".length);
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(response.status, event.error);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
