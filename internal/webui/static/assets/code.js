// A hold's short code: eight characters of Crockford's base32, such as 7K2M-9QXD. It is made of the
// id alone. internal/reservation/code.go explains it; the tests of both have the same examples.

const DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TIME_SPAN = 2 ** 35; // the code keeps this many milliseconds of the id's time

// code returns the short code of a hold's id.
export function code(id) {
  const hex = id.replaceAll("-", "");
  const time = parseInt(hex.slice(0, 12), 16) % TIME_SPAN;
  const low = parseInt(hex.slice(30), 16) % 32;
  // 40 bits, the last one first. JavaScript's shifts take 32 bits, so this goes bit by bit.
  const bits = (time * 32 + low).toString(2).padStart(40, "0").split("").reverse().join("");
  let text = "";
  for (let at = 0; at < 40; at += 5) {
    text += DIGITS[parseInt(bits.slice(at, at + 5), 2)];
  }
  return `${text.slice(0, 4)}-${text.slice(4)}`;
}

// parseCode returns a code as code() writes it, of what a person typed: in any case, with or without
// the hyphen, with O for 0, and with I or L for 1. It returns "" for a text that is no code.
export function parseCode(typed) {
  const text = typed.toUpperCase().replaceAll(/[-\s]/g, "").replaceAll("O", "0")
    .replaceAll(/[IL]/g, "1");
  const fits = text.length === 8 && [...text].every((c) => DIGITS.includes(c));
  return fits ? `${text.slice(0, 4)}-${text.slice(4)}` : "";
}
