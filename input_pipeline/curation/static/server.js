// What the page asks the server for.

export async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  const answer = await fetch(path, options).catch(() => {
    throw new Error("The program does not answer: start it again, and continue here.");
  });
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error || answer.statusText);
  return data;
}

// Pictures that were loaded before they are needed, by their address.
let ahead = new Map();

function start(image, small) {
  const picture = new Image();
  picture.src = image.url + (small ? "?small=1" : "");
  picture.alt = image.name;
  return picture;
}

export function loadAhead(images, small) {
  ahead = new Map(images.map(image => {
    const picture = start(image, small);
    picture.decode().catch(() => {});  // Said when it is shown.
    return [picture.src, picture];
  }));
}

// The picture of an image, once it can be drawn; an Error with the reason if it cannot.
export async function load(image, small) {
  let picture = start(image, small);
  const {src} = picture;
  picture = ahead.get(src) ?? picture;
  ahead.delete(src);  // A picture stands in one place; another pair may show the same image.
  try {
    await picture.decode();
  } catch {
    await ask(image.url);  // Which says why.
    throw new Error(`${image.name} cannot be shown.`);
  }
  return picture;
}
