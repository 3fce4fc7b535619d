// Tiles: how many fit, which key is on which, and how one looks.

const ROWS = ["1234567", "qwertyuiop", "asdfghjkl", "zxcvbnm"];
const GAP = 10, CAPTION = 26;  // Pixels around the pictures of a tile.
const LEAST = 105;  // Pixels of a picture that a person still sees well.

// The columns with which `count` tiles of `wide` pictures in a row are largest in a box.
export function grid(count, wide, box) {
  let best = {side: -Infinity};
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const side = Math.min((box.width / columns - GAP) / wide, box.height / rows - GAP - CAPTION);
    if (side > best.side) best = {columns, rows, side};
  }
  return best;
}

// How many tiles to ask for, from 12 to 24.
export function howMany(wide, box) {
  for (let count = 24; count > 12; count--) {
    const {columns, rows, side} = grid(count, wide, box);
    if (columns * rows === count && side >= LEAST) return count;
  }
  return 12;
}

// A key for each tile. They lie on the keyboard as the tiles do, where the keyboard allows it.
export function keysOf(count, columns) {
  const rows = Math.ceil(count / columns);
  const lines = rows > 3 ? ROWS : ROWS.slice(1);
  if (rows <= lines.length && columns <= 7)
    return lines.slice(0, rows).flatMap(line => [...line.slice(0, columns)]).slice(0, count);
  return [...ROWS.slice(1).join("")].slice(0, count);
}

export function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

// A button with a key, pictures and what may be wrong; `name` is for those who do not see it.
export function tile(key, pictures, marks, name) {
  const button = element("button", {className: "tile", type: "button", ariaLabel: name},
    element("span", {className: "both"}, ...pictures),
    element("span", {className: "caption"},
      element("kbd", {textContent: key.toUpperCase()}), ...marks.map(mark)));
  button.dataset.key = key;
  return button;
}

export function mark(text) {
  return element("span", {className: "mark", textContent: text, title: text});
}
