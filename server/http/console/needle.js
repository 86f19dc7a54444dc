// The needle demo: a chapter with a sentence planted in it, and the question for it. The same as
// tools/demo.py.

import {getText, postJson} from "./api.js";

const kSpareTokens = 200;  // for question and answer

async function countTokens(prompt) {
  return (await postJson("tokenize", {prompt})).count;
}

// {name, text, planted: {text, first, last}, question}; the chapter is cut where the context is short.
export async function makeNeedle(maxTokens) {
  const chapter = await getText("console/demo_chapter.txt");
  const number = 10000 + crypto.getRandomValues(new Uint32Array(1))[0] % 90000;
  const sentence = `The secret number of the silver lantern is ${number}.`;
  let paragraphs = chapter.trimEnd().split("\n\n");
  const kept = (maxTokens - kSpareTokens) / await countTokens(chapter);
  if (kept < 1) paragraphs = paragraphs.slice(0, Math.max(2, Math.floor(kept * paragraphs.length)));
  const depth = 0.1 + 0.5 * Math.random();
  const place = Math.floor(depth * paragraphs.length);
  const before = paragraphs.slice(0, place).map((paragraph) => `${paragraph}\n\n`).join("");
  const first = await countTokens(before);
  const last = await countTokens(before + sentence) - 1;
  return {
    name: "The Five Orange Pips",
    note: `with “${sentence}” planted in it`,
    text: [...paragraphs.slice(0, place), sentence, ...paragraphs.slice(place)].join("\n\n"),
    planted: {text: sentence, first, last},
    question: "Question: What is the secret number of the silver lantern?\nAnswer:",
  };
}
