"""bocr-onnx: physically slimmer ONNX files, found by search and proved equal to the masked original."""
