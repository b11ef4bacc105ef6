// The session that all contenders keep; benchmarks/order.py makes the same one.
const item = () => ({ name: "Apples, red", amount: 2, price: 12.5 });

export const newOrder = (items) => ({
  count: 0,
  step: "choosing",
  language: "en",
  cart: Array.from({ length: items }, item),
});
