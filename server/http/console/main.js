// Begins here: which view is shown, the API key, the served model.

import {apiKey, getJson, setApiKey} from "./api.js";
import {EngineView} from "./engine.js";
import {Reading} from "./reading.js";
import {Geometry, formatCount} from "./trace.js";
import {WriteView} from "./write.js";

const element = (id) => document.getElementById(id);

const reading = new Reading((index) => write.markToken(index));
const write = new WriteView(reading, showError);
const engine = new EngineView(showError);

// null: all is well again.
function showError(error) {
  const problem = element("problem");
  problem.hidden = error === null;
  problem.textContent = error?.message ?? "";
  if (error?.status === 401 && element("key-form").hidden) openKeyForm(true);
}

function openKeyForm(open) {
  element("key-form").hidden = !open;
  element("key-button").setAttribute("aria-expanded", open);
  if (open) element("key").focus();
}

async function loadModel() {
  try {
    const model = (await getJson("v1/models")).data[0];
    const tokenizer = await getJson("tokenizer_info");
    element("model").textContent = `${model.id} · ${formatCount(model.max_model_len)} tokens`;
    document.title = `${model.id} · nsa-serve`;
    element("chat-link").hidden = tokenizer.chat_template === null;
    reading.setGeometry(model.nsa ? new Geometry(model.nsa) : null);
    write.setModel(model);
    showError(null);
  } catch (error) {
    showError(error);
    if ([0, 503].includes(error.status)) setTimeout(loadModel, 1000);  // the server starts, or loads it
  }
}

function showView() {
  const view = ["chat", "engine"].includes(location.hash.slice(1)) ? location.hash.slice(1) : "complete";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  element("engine").hidden = view !== "engine";
  element("write").hidden = view === "engine";
  engine.setVisible(view === "engine");
  if (view !== "engine") write.setMode(view);
}

element("key-button").addEventListener("click", () => openKeyForm(element("key-form").hidden));
element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey(element("key").value.trim());
  openKeyForm(false);
  loadModel();
});
element("key").value = apiKey();
addEventListener("hashchange", showView);
if (matchMedia("(max-width: 860px)").matches) element("sampling").open = false;
showView();
loadModel();
