// Completion and chat: the composer, one streamed answer at a time, its figures.

import {postJson, postStream} from "./api.js";
import {makeNeedle} from "./needle.js";
import {Run, formatBytes, formatCount} from "./trace.js";

const kMaxFileBytes = 1 << 20;  // what /tokenize takes
const kNumbers = ["temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
                  "repetition_penalty", "seed", "max_tokens"];
const element = (id) => document.getElementById(id);

export class WriteView {
  // onError(error or null)
  constructor(reading, onError) {
    this.reading = reading;
    this.onError = onError;
    this.mode = "complete";
    this.document = null;   // {name, note, text, planted}
    this.messages = [];     // of the chat: those that were answered, and the answers
    this.turn = null;       // of the chat, while it lasts: {content, shown, document, items, answer}
    this.controller = null; // of the answer in progress
    this.spans = [];        // per token of the answer: the element that shows it
    element("send").addEventListener("click", () => this.generate());
    element("stop").addEventListener("click", () => this.controller?.abort());
    element("demo").addEventListener("click", () => this.fillDemo());
    element("clear").addEventListener("click", () => this.clearChat());
    element("document-remove").addEventListener("click", () => this.setDocument(null));
    element("file").addEventListener("change", (event) => this.open(event.target.files[0]));
    element("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.generate();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.controller?.abort();
    });
    this.acceptDrops(element("composer"));
  }

  setModel(model) {
    this.model = model;
    element("demo").disabled = false;
    element("send").disabled = Boolean(this.controller);
  }

  setMode(mode) {
    if (mode === this.mode) return;
    this.controller?.abort();
    this.mode = mode;
    const chat = mode === "chat";
    element("write").classList.toggle("is-chat", chat);
    element("write-title").textContent = chat ? "Chat" : "Complete";
    element("prompt-label").textContent = chat ? "Message" : "Text to continue";
    element("prompt").placeholder = chat ? "Say something" : "Once upon a time";
    element("send").textContent = chat ? "Send" : "Generate";
    element("system-label").hidden = !chat;
    element("demo").hidden = chat;
    element("clear").hidden = !chat;
    element("answer-block").hidden = true;
    this.clearChat();
  }

  clearChat() {
    this.controller?.abort();
    this.turn = null;
    this.messages = [];
    element("messages").replaceChildren();
    this.say("");
    this.reading.reset(null);
  }

  // --- what is sent ------------------------------------------------------------------------------

  acceptDrops(target) {
    target.addEventListener("dragover", (event) => {
      event.preventDefault();
      target.classList.add("is-target");
    });
    target.addEventListener("dragleave", () => target.classList.remove("is-target"));
    target.addEventListener("drop", (event) => {
      event.preventDefault();
      target.classList.remove("is-target");
      this.open(event.dataTransfer.files[0]);
    });
  }

  async open(file) {
    if (!file) return;
    element("file").value = "";
    if (file.size > kMaxFileBytes) {
      this.onError(new Error(`${file.name} has ${formatBytes(file.size)}; at most ${formatBytes(kMaxFileBytes)} are taken.`));
      return;
    }
    try {
      const text = new TextDecoder("utf-8", {fatal: true}).decode(await file.arrayBuffer());
      this.setDocument({name: file.name, text});
      this.onError(null);
    } catch {
      this.onError(new Error(`${file.name} is not a text in UTF-8.`));
    }
  }

  async setDocument(document) {
    this.document = document;
    element("document").hidden = document === null;
    if (document === null) return;
    element("document-name").textContent = document.name;
    const note = document.note ?? formatBytes(new Blob([document.text]).size);
    element("document-size").textContent = note;
    try {
      const {count} = await postJson("tokenize", {prompt: document.text});
      if (this.document === document) element("document-size").textContent = `${note} · ${formatCount(count)} tokens`;
    } catch (error) {
      this.onError(error);
    }
  }

  async fillDemo() {
    try {
      const needle = await makeNeedle(this.model.max_model_len);
      this.setDocument(needle);
      element("prompt").value = needle.question;
      element("temperature").value = 0;
      element("max_tokens").value = 24;
      element("stop_text").value = "\\n";
      element("send").focus();
      this.onError(null);
    } catch (error) {
      this.onError(error);
    }
  }

  sampling() {
    const fields = {};
    for (const name of kNumbers) {
      const input = element(name);
      if (input.value === "") continue;
      const {valid, stepMismatch} = input.validity;  // a step is for the arrows of a field alone
      if (!valid && !stepMismatch) throw new Error(`${name}: ${input.validationMessage}`);
      fields[name] = Number(input.value);
    }
    const stop = element("stop_text").value.replaceAll("\\n", "\n");
    if (stop) fields.stop = stop;
    return fields;
  }

  // Document and text; null: there is nothing to send.
  takeText() {
    const text = element("prompt").value;
    if (!text && !this.document) return null;
    return this.document ? `${this.document.text.trimEnd()}\n\n${text}` : text;
  }

  // --- the answer --------------------------------------------------------------------------------

  async generate() {
    const text = this.takeText();
    if (this.controller || text === null || !this.model) return;
    this.controller = new AbortController();
    this.setBusy(true);
    this.onError(null);
    if (this.mode === "chat") this.beginTurn(text);
    const turn = this.turn;
    try {
      const request = await this.prepare(text);
      await this.follow(request);
      this.say(`Done: ${formatCount(this.numTokens)} tokens${this.untraced()}.`);
    } catch (error) {
      if (error.name === "AbortError") this.say("Stopped.");
      else {
        this.say("");
        this.onError(error);
      }
    } finally {
      this.controller = null;
      this.setBusy(false);
      if (turn && turn === this.turn) this.endTurn();
    }
  }

  // The request {path, body}, with the ids of its prompt in a new run.
  async prepare(text) {
    const chat = this.turn !== null;
    const sampling = this.sampling();
    const planted = chat ? null : this.document?.planted ?? null;
    this.say("Reading the prompt…");
    const input = chat ? {messages: this.allMessages()} : {prompt: text};
    const {tokens} = await postJson("tokenize", input, this.controller.signal);
    this.run = new Run(tokens.slice());
    this.run.planted = planted;
    this.reading.reset(this.run);
    this.beginAnswer(tokens.length);
    const wantsTrace = this.reading.geometry !== null && element("trace").checked;
    return {
      path: chat ? "v1/chat/completions" : "v1/completions",
      body: {
        model: this.model.id,
        ...(chat ? input : {prompt: tokens}),
        ...sampling,
        stream: true,
        stream_options: {include_usage: true},
        ...(wantsTrace ? {nsa_trace: true} : {}),
      },
    };
  }

  async follow({path, body}) {
    const start = performance.now();
    let first = 0;
    let waiting = [];  // entries whose text has not come yet
    this.numTokens = 0;
    for await (const event of postStream(path, body, this.controller.signal)) {
      if (event.usage) this.showUsage(event.usage);
      const choice = event.choices[0];
      if (!choice) continue;
      const text = choice.text ?? choice.delta?.content ?? "";
      const entries = choice.nsa_trace ?? [];
      if (!text && entries.length === 0) continue;
      const now = performance.now();
      if (first === 0) {
        first = now;
        element("figure-first").textContent = formatDuration(first - start);
        this.say("Writing…");
      }
      this.numTokens += Math.max(entries.length, 1);
      this.showSpeed(now - first);
      waiting = this.showChunk(text, waiting, entries);
    }
  }

  // Adds a chunk to the answer; returns the entries that still wait for their text.
  showChunk(text, waiting, entries) {
    const index = this.run.entries.length;
    entries.forEach((entry, i) => this.run.add(entry, i + 1 === entries.length ? text : ""));
    const tokens = [...waiting, ...entries.map((_, i) => index + i)];
    if (entries.length) this.reading.grown();
    if (!text) return tokens;
    const span = document.createElement("span");
    span.textContent = text;
    if (tokens.length) span.dataset.token = tokens.at(-1);
    for (const token of tokens) this.spans[token] = span;
    if (this.turn) this.emptyComposer();
    const page = this.turn ? element("messages") : this.answer;
    const atEnd = page.scrollTop + page.clientHeight >= page.scrollHeight - 8;
    this.answer.append(span);
    if (atEnd) page.scrollTop = page.scrollHeight;
    return [];
  }

  beginAnswer(numPromptTokens) {
    if (this.answer) this.answer.onclick = null;  // an earlier turn of a chat is not this run's
    this.markToken(-1);
    this.spans = [];
    if (this.turn) this.answer = this.turn.answer = this.addMessage("assistant", "");
    else {
      this.answer = element("answer");
      this.answer.replaceChildren();
      element("answer-block").hidden = false;
    }
    this.answer.onclick = (event) => {
      if (event.target.dataset.token) this.reading.step(Number(event.target.dataset.token));
    };
    for (const name of ["first", "speed", "cached"]) element(`figure-${name}`).textContent = "–";
    element("figure-prompt").textContent = formatCount(numPromptTokens);
  }

  markToken(index) {
    this.marked?.classList.remove("current");
    this.marked = this.spans[index] ?? null;
    this.marked?.classList.add("current");
  }

  showSpeed(elapsedMs) {
    if (this.numTokens < 2 || elapsedMs <= 0) return;
    const speed = (this.numTokens - 1) / (elapsedMs / 1000);
    element("figure-speed").textContent = speed >= 100 ? formatCount(Math.round(speed)) : speed.toFixed(1);
  }

  // A token that a stop text cut off was generated, but the strip and its sums do not have it.
  untraced() {
    const numTraced = this.run.entries.length;
    return numTraced && numTraced < this.numTokens
      ? `, ${formatCount(this.numTokens - numTraced)} of them cut off and not in the strip` : "";
  }

  showUsage(usage) {
    this.numTokens = usage.completion_tokens;
    element("figure-prompt").textContent = formatCount(usage.prompt_tokens);
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    element("figure-cached").textContent =
      cached ? `${formatCount(cached)} · ${Math.round(100 * cached / usage.prompt_tokens)} %` : "0";
  }

  setBusy(busy) {
    element("send").disabled = busy || !this.model;
    element("stop").disabled = !busy;
    element("write").classList.toggle("is-busy", busy);
    for (const id of ["messages", "answer"]) element(id).setAttribute("aria-busy", busy);
  }

  say(text) {
    element("status").textContent = text;
  }

  // --- the chat ----------------------------------------------------------------------------------

  allMessages() {
    const system = element("system").value.trim();
    return [...(system ? [{role: "system", content: system}] : []), ...this.messages,
            {role: "user", content: this.turn.content}];
  }

  addMessage(role, text) {
    const item = document.createElement("li");
    item.className = role;
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = role === "user" ? "You" : this.model.id;
    const body = document.createElement("div");
    body.className = "answer";
    body.textContent = text;
    item.append(who, body);
    this.turn.items.push(item);
    element("messages").append(item);
    element("messages").scrollTop = element("messages").scrollHeight;
    return body;
  }

  beginTurn(content) {
    const shown = element("prompt").value;
    this.turn = {content, shown, document: this.document, items: [], answer: null};
    this.addMessage("user", this.document ? `[${this.document.name}]\n\n${shown}` : shown);
  }

  // The message is being answered: it need not be sent again. What is new in the composer stays.
  emptyComposer() {
    const {shown, document} = this.turn;
    if (element("prompt").value === shown) element("prompt").value = "";
    if (document && this.document === document) this.setDocument(null);
    this.turn.shown = this.turn.document = null;
  }

  // Message and answer join the conversation; a message that got none leaves the page.
  endTurn() {
    const {content, items, answer} = this.turn;
    this.turn = null;
    if (answer?.textContent) {
      this.messages.push({role: "user", content}, {role: "assistant", content: answer.textContent});
    } else {
      for (const item of items) item.remove();
    }
  }
}

function formatDuration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}
