"""Room 13: does the music do what the prompt says, and how good is it?

`clips.py` brings real and generated clips, `judges.py` and `metrics.py` listen to them, `measurements.py` asks one
question each, and `evaluation.py` asks all of them and writes what `report.py` makes readable.
"""
