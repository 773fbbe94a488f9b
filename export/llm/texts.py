"""What a language model is compared on where the user gives nothing: questions, and a text to read."""

QUESTIONS = (
    "What is the capital of France?",
    "Explain in one sentence why the sky is blue.",
    "Write a haiku about the sea.",
    "List three things to check before a long journey by car.",
    "Translate into German: The train leaves at nine in the morning.",
    "What is seventeen times four?",
    "Name a fruit that is yellow, and say how it is eaten.",
    "Write a Python function that returns the larger of two numbers.",
)

TEXT = """\
The old lighthouse stood at the end of a narrow path that the winter storms had nearly washed away. Every evening, an
hour before the sun went down, the keeper climbed the one hundred and forty steps to the lamp, cleaned the glass with a
soft cloth, and looked out over the water. On clear days she could see the fishing boats come home, one behind the
other, with the gulls above them. On other days there was nothing but fog, and then she listened.

She had come to the island when she was twenty-six, for one summer only. The letter had promised good pay, a dry house
and a great deal of time to read. All of it was true, and so the summer became a year, and the year became eleven. Her
brother wrote to her every month. He worked in a bank in the city and could not understand what anyone did all day with
two goats, a radio and the weather. She answered that the days were not long enough. There were walls to paint, ropes
to mend, and the garden to save from the goats. At noon she measured the wind, the pressure and the height of the tide,
and sent the three numbers to the harbour master, who thanked her each time as if she had given him a present.

In the spring a young engineer arrived with a box full of instruments. From now on, he explained, the lamp would light
itself, and a small machine would measure the wind every minute and send the figures by satellite. Nobody would have to
climb the stairs in the dark any more. He said it kindly, and she gave him coffee and showed him the view. Then she
asked what the machine would do when it heard somebody call for help in the fog. The engineer looked at the box for a
while. He put two more spoons of sugar into his cup, and admitted that nobody had thought of that.
"""
