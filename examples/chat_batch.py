"""Answer several chats together; each is what it would be alone.

python examples/chat_batch.py
"""

import sys

from foresay import MultiTokenModel

model = MultiTokenModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "smollm2")

chats = [
    [{"role": "user", "content": "What is 17 + 25?"}],
    [
        {"role": "user", "content": "Name a fruit."},
        {"role": "assistant", "content": "Apple."},
        {"role": "user", "content": "Another one."},
    ],
]
for chat, answer in zip(chats, model.answer(chats, max_new_tokens=32)):
    print(f"{chat[-1]['content']}\n  {answer.text.strip()}\n  {answer.tokens_per_step:.2f} tokens a step")
